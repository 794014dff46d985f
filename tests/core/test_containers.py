"""The forms of images and mounts, and the errors for others."""

import pytest

from slurminfer.core.containers import Mount, parse_mount, runtimes_of
from slurminfer.core.errors import SpecError
from slurminfer.core.spec.files import dump_spec, parse_spec

SPEC = """
name = "x"
[model]
path = "m"
[[pool]]
{keys}
"""


@pytest.mark.parametrize(
    ("image", "runtimes"),
    [
        ("/images/vllm.sif", ["apptainer"]),
        ("/images/vllm.sqsh", ["pyxis", "apptainer"]),
        ("/images/directory", ["apptainer"]),
        ("docker://vllm/vllm-openai:v0.11", ["apptainer", "pyxis"]),
        ("oras://ghcr.io/org/image:1", ["apptainer"]),
        ("nvcr.io#nvidia/vllm:25.09-py3", ["pyxis"]),
        ("ubuntu", ["pyxis"]),
        ("ftp://host/image", []),
        ("an image", []),
        ("--privileged", []),
    ],
)
def test_an_image_is_for_the_runtimes_that_its_form_says(image, runtimes):
    assert list(runtimes_of(image)) == runtimes


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a", Mount("/a", "/a")),
        ("/a:/b", Mount("/a", "/b")),
        ("/a:/b:ro", Mount("/a", "/b", read_only=True)),
        ("/a:/b:rw", Mount("/a", "/b")),
    ],
)
def test_a_mount_is_a_path_perhaps_another_one_inside_and_a_mode(text, mount):
    assert parse_mount(text) == mount


@pytest.mark.parametrize("text", ["", "a", "/a:", "/a:b", "/a::ro", "/a:/b:rx", "/a:/b:ro:", "/a,/b", "/a:/b\n"])
def test_other_mounts_are_refused(text):
    with pytest.raises(ValueError):
        parse_mount(text)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('container = "image.sif"', "pool[0].container = 'image.sif': expected an absolute path"),
        ('container = "/a,b.sif"', "pool[0].container = '/a,b.sif': expected an absolute path"),
        ('container = "ftp://x"', "pool[0].container = 'ftp://x': expected an absolute path"),
        ('container_runtime = "apptainer"', "pool[0].container_runtime = 'apptainer': expected only with container"),
        ('container_mounts = ["/a"]', "pool[0].container_mounts = ['/a']: expected only with container"),
        ('container = "/a.sif"\ncontainer_runtime = "docker"', "expected one of: apptainer, pyxis"),
        ('container = "/a.sif"\ncontainer_runtime = "pyxis"', "expected apptainer for container = '/a.sif'"),
        ('container = "a/b:1"\ncontainer_runtime = "apptainer"', "expected pyxis for container = 'a/b:1'"),
        ('container = "/a.sif"\ncontainer_mounts = ["/a", "b"]', "pool[0].container_mounts[1] = 'b': expected '/path'"),
    ],
)
def test_errors_name_the_key_the_value_and_what_is_valid(keys, said):
    with pytest.raises(SpecError) as refused:
        parse_spec(SPEC.format(keys=keys))
    assert said in str(refused.value)


def test_a_spec_with_a_container_is_read_as_it_was_written():
    keys = 'container = "/a.sif"\ncontainer_runtime = "apptainer"\ncontainer_mounts = ["/a:/b:ro"]'
    spec = parse_spec(SPEC.format(keys=keys))
    assert parse_spec(dump_spec(spec)) == spec
