"""Failures of the container that an engine runs in, as Apptainer and Singularity write about them."""

from ....core.logs.failures import known

CONTAINERS = (
    known(
        "image-absent",
        r"could not open image (?P<image>\S.*?): .*(no such file or directory)",
        "the node does not see the image {image}",
        "set `container` to a path that all nodes of the partition see",
        at_start=True,
    ),
    known(
        "image-not-readable",
        r"could not open image (?P<image>\S.*?): .*(not readable by the current user|permission denied)",
        "the image {image} may not be read",
        "'chmod a+r' on the image, and 'chmod a+x' on the folders above it, by their owner",
        at_start=True,
    ),
    known(
        "image-broken",
        r"could not open image (?P<image>\S.*?): image format not recognized",
        "{image} is no image, or only part of one",
        "make it again with 'apptainer pull' or 'apptainer build'; a copy or download may have been cut short",
        at_start=True,
    ),
    known(
        "mount-absent",
        r"mount source (?P<source>/.*) doesn't exist",
        "{source}, which is to be in the container, is not on the node",
        "correct `container_mounts` of the pool; a path of the model or of SLURMINFER_HOME must be where all "
        "nodes see it",
        at_start=True,
    ),
    known(
        "no-user-namespaces",
        r"failed to create user namespace|user namespaces? (is|are|support)? ?(disabled|not enabled)",
        "the node lets ordinary users start no containers (user namespaces)",
        "ask the administrators for user namespaces, or for Apptainer with its setuid program (apptainer-suid)",
        at_start=True,
    ),
    known(
        "image-without-shell",
        r'^(FATAL: +)?"sh": executable file not found in \$PATH',
        "the image has no sh, which starts the engine in it",
        "take an image with a shell and the engine, or name the folders of programs with container_mounts",
        at_start=True,
    ),
    known(
        "image-without-python",
        r"engine: \d+: exec: (?P<python>\S+): not found",
        "the image has no {python}, or not the loader that it needs",
        "set `python` of the pool to the interpreter in the image that has the engine",
        at_start=True,
    ),
)
