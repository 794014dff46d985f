"""Templates that would never end, or fill the memory, and that all others say what Jinja says."""

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import SecurityError

from slurminfer.core.errors import UsageError
from slurminfer.jobs.batch.inputs.request import BadRowError
from slurminfer.jobs.batch.inputs.templates import sandbox
from slurminfer.jobs.batch.inputs.templates.growth import LONGEST_TEXT, size_after
from slurminfer.jobs.batch.inputs.templates.template import Template

ROW = {
    "text": "a <b> & 'c'\n\td é",
    "number": 7,
    "nothing": None,
    "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}],
    "tree": [{"name": "r", "below": [{"name": "s", "below": []}, {"name": "t", "below": []}]}],
}


def render(text: str) -> str:
    return Template("--template", text).render(ROW, tuple(ROW))


@pytest.mark.parametrize(
    "text",
    [
        "{{ text }}|{{ number }}|{{ nothing }}|{{ messages }}|{{ number / 2 }}",
        "{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ m.role }}: {{ m.content }}"
        "{{ '' if loop.last else ', ' }}{% else %}none{% endfor %}",
        "{% for m in messages if m.role == 'user' %}{{ loop.length }}{{ loop.last }}{% endfor %}",
        "{% for m in [] %}a{% else %}empty{% endfor %}{% for a, b in {'x': 1}.items() %}{{ a }}{{ b }}{% endfor %}",
        "{% for n in tree recursive %}{{ n.name }}({{ loop(n.below) }}){{ loop.depth }}{% endfor %}",
        "{{ text ~ number ~ nothing }} {{ 'a' + 'b' }} {{ 'ab' * 3 }} {{ [1] + [2] }} {{ 2 ** 10 }} {{ 7 % 4 }}",
        "{{ '%s-%03d %%' % (text, number) }} {{ '{:>5}|{a}'.format(number, a=text) }} {{ '%s' | format(1) }}",
        "{{ messages | map(attribute='content') | map('upper') | join(', ') }} {{ messages | length }}",
        "{{ messages | selectattr('role', 'equalto', 'user') | list }} {{ messages | tojson }} {{ text | tojson }}",
        "{{ text | replace('a', 'zz') }} {{ text | indent(3) }} {{ text | center(40) }} {{ text | wordwrap(4) }}",
        "{{ text.split() }} {{ text.replace('a', 'x').upper().center(30) }} {{ ', '.join(['a', 'b']) }}",
        "{{ text[1:4] }} {{ text[-1] }} {{ messages[:1] }} {{ messages[0]['role'] }} {{ (1, 2)[::-1] }}",
        "{% set x %}a{{ number }}{% endset %}{{ x }}{% filter upper %}b{{ x }}{% endfilter %}",
        "{% macro f(n, d='-') %}{{ n }}{{ d }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
        "{% macro g() %}<{{ caller(1) }}>{% endmacro %}{% call(v) g() %}{{ v }}{% endcall %}",
        "{% set ns = namespace(n=0) %}{% for i in range(5) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
        "{{ missing | default('-') }}{{ 'y' if missing is defined else 'n' }}{{ 'é' | e }} {{ 'a' in text }}",
        "{{ range(7) | batch(3, 'x') | list }} {{ [3, 1] | sort | first }} {{ {'a': {'b': 1}}.a.b }}",
        "{% for k, v in messages[0] | dictsort %}{{ k }}={{ v }};{% endfor %}{{ messages | groupby('role') | length }}",
    ],
)
def test_other_templates_say_what_jinja_says(text):
    plain = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    assert render(text) == plain.from_string(text).render(ROW)


SETUP = "{% set ns = namespace(x='ab', l=[1]) %}"


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for x in [[1]] recursive %}{{ loop(range(99999) | list) }}{% endfor %}",
        "{% for x in range(999) %}{{ range(9999) | map('string') | list | length }}{% endfor %}",
        "{% set b = 'a' * 999999 %}" + SETUP + "{% for i in range(9999) %}{% set ns.l = ns.l + [b[1:]] %}{% endfor %}",
        "{% set x %}{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}{% endset %}",
        SETUP + "{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
        SETUP + "{% for i in range(60) %}{% set ns.l = {'a': ns.l, 'b': ns.l} %}{% endfor %}{{ ns.l | tojson }}",
    ],
)
def test_what_never_ends_is_refused(text, monkeypatch):
    monkeypatch.setattr(sandbox, "MOST_STEPS", 20_000)
    with pytest.raises(BadRowError, match="--template: takes more than 20000 steps: does a loop or a macro ever end"):
        render(text)


@pytest.mark.parametrize(
    "text",
    [
        SETUP + "{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        SETUP + "{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        SETUP + "{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
        "{{ text.center(9999999999) }}", "{{ text.ljust(9999999999) }}", "{{ text | center(9999999999) }}",
        "{{ text.expandtabs(9999999999) }}", "{{ text | indent(9999999999) }}", "{{ text.zfill(width=9999999999) }}",
        "{{ '%9999999999d' % 1 }}", "{{ '%*d' % (999999999, 1) }}", "{{ '%9999999999d' | format(1) }}",
        "{{ '%.999999999f' % 1 }}", "{{ '{:>9999999999}'.format(1) }}", "{{ '{:>{}}'.format(1, 999999999) }}",
        "{{ '{a:>{w}}'.format_map({'a': 1, 'w': 999999999}) }}", "{{ ('{0}' * 9999).format('a' * 999999) }}",
        "{{ ('a' * 999999).replace('a', 'b' * 999999) }}", "{{ ('a' * 999999) | replace('', 'b' * 999999) }}",
        "{{ range(99999) | join('b' * 999999) }}",
        "{{ ('b' * 999999).join((['a'] * 99999)) }}", "{{ ([{'k': 'a' * 999999}] * 99999) | join(attribute='k') }}",
        "{{ text | batch(9999999999, 'x') | list }}", "{{ text * 10 ** 9 }}", "{{ [1] * 10 ** 9 }}",
        "{{ 10 ** 100000 }}", "{{ text | wordwrap(1, wrapstring='x' * 9999999) }}",
    ],
)  # fmt: skip
def test_what_would_fill_the_memory_is_refused(text):
    with pytest.raises(BadRowError, match=r"--template: a (text|list|number) (is longer|has more) than"):
        render(text)


NESTED = "{% set a = [0] * 300 %}{% set b = [a] * 300 %}{% set c = [b] * 99999 %}"
HUGE = "{% set a, b, n = 'x' * 30000000, 'x' * 30000000, [1] * 999999 %}{% for i in range(99999) %}"


@pytest.mark.parametrize(
    "text",
    [
        # lists that are a few in memory, and very many as a text or where they are compared
        NESTED + "{{ c }}", NESTED + "{{ c ~ c }}", NESTED + "{{ c | tojson }}", NESTED + "{{ c | string }}",
        NESTED + "{{ '%s' % (c,) }}", NESTED + "{{ '{}'.format(c) }}", NESTED + "{{ c == [b] * 99999 }}",
        NESTED + "{% set ns = namespace(c=c) %}{{ ns }}", "{{ ([range(9999) | list] * 9999) | sum(start=[]) }}",
        # one step each, by what is written, that looks at millions of characters or items
        HUGE + "{% if a == b %}{% endif %}{% endfor %}", HUGE + "{% if 'y' in a %}{% endif %}{% endfor %}",
        HUGE + "{% if 2 in n %}{% endif %}{% endfor %}", HUGE + "{% if 2 is in n %}{% endif %}{% endfor %}",
        HUGE + "{% if a is upper %}{% endif %}{% endfor %}", HUGE + "{% if n.count(2) %}{% endif %}{% endfor %}",
        HUGE + "{{ loop.changed(n) }}{% endfor %}",
        "{{ ('x' * 9999999).strip('y' * 9999999 ~ 'x') }}", "{{ ('x' * 9999999) | trim('y' * 9999999 ~ 'x') }}",
        "{{ ('x ' * 30000000) | wordwrap }}", "{{ ('x ' * 30000000) | title }}", "{{ ('x ' * 30000000).split() }}",
        "{{ ('x ' * 30000000) | wordcount }}", "{{ ('<!---->' * 999999) | striptags }}",
        "{{ ([[1]] * 999999) | pprint }}", "{{ ('\n' * 60000000).splitlines() }}",
        # numbers of thousands of digits
        "{% set a = 7 ** 7000 %}{% for i in range(99999) %}{{ '' if a * a }}{{ '' if a // 3 ** 9 }}{% endfor %}",
    ],
)  # fmt: skip
def test_what_costs_much_is_counted_as_much(text):
    with pytest.raises(BadRowError, match="takes more than 1000000 steps"):
        render(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ (5).to_bytes(2000000000, 'big') }}", "int.to_bytes is not for templates"),
        ("{{ 'a'.encode().ljust(4000000000) }}", "bytes.ljust is not for templates"),
        ("{{ ('x' * 1000000).translate({120: 'y' * 1000000}) }}", "str.translate is not for templates"),
        ("{{ {}.fromkeys('abc') }}", "type.fromkeys is not for templates"),
        ("{{ 'é'.encode('punycode') }}", "encode: expected one of ascii, latin-1, utf-8"),
        ("{{ 5 | round(-100000000) }}", "round: a number has more than 400 digits"),
        ("{{ 1 | round(100000000, 'ceil') }}", "round: a number has more than 400 digits"),
        ("{{ [1] | tojson(indent=60000000) }}", "tojson: an indent has more than 64 spaces"),
        ("{{ ('f' * 10000000) | int(base=16) }}", "a number has more than 10000 digits"),
        ("{{ [1] | map(attribute='a.' * 30000000) | list }}", "map: a name has more than 10000 characters"),
        ("{{ ('x' * 60000000) | list }}", "a list has more than 1048576 items"),
        ("{{ (['a' * 1000000] * 1000000) | max }}", "a text is longer than 67108864 characters"),
    ],
)
def test_what_no_template_needs_is_refused(text, said):
    with pytest.raises(BadRowError, match=said):
        render(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ text.startswith('a') }} {{ text.encode('utf-8') | length }} {{ text.encode().decode() }}",
        "{{ 0.5.is_integer() }}",
        "{{ messages[0].get('role') }} {{ messages[0].items() | list }} {{ [1, 2, 1].count(1) }} {{ 7 // 2 - 1 }}",
        "{{ [[1], [2]] | sum(start=[]) }} {{ [1, 2] | sum }} {{ 'role' in messages[0] }}",
        "{{ 3 in [1, 2] }} {{ 1 < 2 < 3 }}",
        "{{ text is lower }} {{ 1 is in [1] }} {{ messages | rejectattr('role', 'in', ['user']) | list }}",
        "{{ 2.75 | round(1) }} {{ 1234 | round(-2) }} {{ '<b>x</b>' | striptags }} {{ ' x ' | trim }}",
        "{{ {'a': [1]} | tojson(2) }}",
        "{% for n in [1, 1, 2] %}{{ loop.changed(n) }}{{ loop.cycle('a', 'b') }}{% endfor %}",
    ],
)
def test_other_operations_say_what_jinja_says(text):
    test_other_templates_say_what_jinja_says(text)


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in [1] %}" * 25 + "{% endfor %}" * 25,
        "{% macro a(x, x) %}{% endmacro %}",
        "{{ 1 | round(precision=1, precision=2) }}",
        "{{ " + "9" * 5000 + " }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    ],
)
def test_what_python_cannot_have_is_no_template(text):
    with pytest.raises(UsageError, match=r"^--template: .*expected a Jinja template"):
        Template("--template", text)


def test_a_number_that_is_none_is_told():
    with pytest.raises(BadRowError, match="inf"):
        render("{{ 1e999 }}")


def test_each_rendering_has_a_budget_of_its_own(monkeypatch):
    monkeypatch.setattr(sandbox, "MOST_STEPS", 50)
    template = Template("--template", "{% for i in range(20) %}{{ i }}{% endfor %}")
    assert {template.render(ROW, ()) for _ in range(9)} == {"".join(map(str, range(20)))}


def test_a_column_cannot_take_the_place_of_the_budget():
    row = {"\0budget": 1, "a": "x"}
    assert Template("--template", "{{ a }}{{ row['\0budget'] }}").render(row, tuple(row)) == "x1"


def test_a_budget_counts_what_is_taken_not_what_is_there():
    assert next(sandbox.Budget().count(range(10**9))) == 0


SHORT, NUMBER = st.text("ab\t\n", max_size=9), st.integers(0, 40)


@given(SHORT, SHORT, SHORT, NUMBER, st.lists(SHORT, max_size=5))
def test_sizes_are_never_estimated_too_small(text, old, new, number, many):
    """Beside what goes in, which is never more than 64 Mi characters itself."""
    made = {
        ("*", (number,)): text * number,
        ("center", (number,)): text.center(number),
        ("zfill", (number,)): text.zfill(number),
        ("expandtabs", (number,)): text.expandtabs(number),
        ("expandtabs", ()): text.expandtabs(),
        ("replace", (old, new)): text.replace(old, new),
        ("join", (tuple(many),)): text.join(many),
    }
    for (name, args), result in made.items():
        assert len(result) <= size_after(name, text, args, {}) + len(text), (name, args)
    form, given = "%s%*s%5s", (text, number, old, new)
    assert len(form % given) <= size_after("%", form, (given,), {}) + len(form)
    form = "{0}{0}{1:>{2}}{a:>7}"
    assert len(form.format(*given[:1], old, number, a=new)) <= len(form) + size_after(
        "format", form, (text, old, number), {"a": new}
    )


@pytest.mark.parametrize("name", ["upper", "split", "length", "tojson", "+", "strip"])
def test_operations_that_make_little_are_never_in_the_way(name):
    assert size_after(name, "a" * 1000, (LONGEST_TEXT * 2,), {}) == 0


def test_limits_are_exact(monkeypatch):
    monkeypatch.setattr(sandbox, "LONGEST_TEXT", 10)
    assert render("{{ 'a' * 5 ~ 'b' * 5 }}") == "aaaaabbbbb"
    with pytest.raises(BadRowError, match="longer than 10 "):
        render("{{ 'a' * 5 ~ 'b' * 6 }}")
    with pytest.raises(SecurityError, match="longer than 9 "):
        sandbox.render(sandbox.compile_template("{{ 'a' * 5 }}{{ 'b' * 5 }}"), {}, 9)
