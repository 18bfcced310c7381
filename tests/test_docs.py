"""What the documents say is what the program does."""

import dataclasses
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from extauth import plugins
from extauth.cli.root import cli
from extauth.configuration import load, read
from extauth.errors import ConfigError
from extauth.layers.rules import CacheRules, Layers, NameRules
from extauth.model import Reason
from extauth.settings import Daemon, Domain

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "config/examples").glob("*.toml"))
PROTOCOLS = ("ejabberd", "prosody", "dovecot", "saslauthd", "admin")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_annotated_configuration_is_usable() -> None:
    settings = load(ROOT / "config/extauth.toml", plugins.InstalledKinds())
    assert set(settings.domains) == {"example.com"}


def test_the_annotated_configuration_shows_the_defaults() -> None:
    settings = load(ROOT / "config/extauth.toml", plugins.InstalledKinds())
    assert settings.daemon == Daemon()
    assert settings.domains["example.com"] == Domain(backends=("local",))
    for listener in settings.listeners:
        assert dataclasses.replace(listener.config, group=None) == type(listener.config)()
    assert settings.backends["local"].layers == Layers()
    for name in ("local", "tokens"):
        assert settings.backends[name].config == plugins.backend(name).Config()


def test_the_annotated_configuration_shows_every_key() -> None:
    configs = [Daemon, Domain, CacheRules, NameRules, plugins.backend("local").Config, plugins.backend("tokens").Config]
    configs += [plugins.listener(protocol).Config for protocol in PROTOCOLS]
    keys = {field.name for config in configs for field in dataclasses.fields(config)}
    text = (ROOT / "config/extauth.toml").read_text()
    assert {key for key in keys if not re.search(rf"^(# )?{key} = ", text, re.MULTILINE)} == set()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_usable_as_they_are(example: Path) -> None:
    done = CliRunner().invoke(cli, ["check", "-c", str(example)])
    assert (done.exit_code, done.output) == (0, f"{example}: good\n")


OURS = re.compile(r"^```toml\n(\[(?:daemon|listener|backend|domain)\b.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = re.compile(r": missing\b|: name at least one\b|no backend ")  # what a page shows only a part of


def problems(text: str) -> tuple[str, ...]:
    """Return what is wrong with a configuration."""
    try:
        read(text, plugins.InstalledKinds())
    except ConfigError as error:
        return error.problems
    return ()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_pages_show_of_the_configuration_is_usable(page: Path) -> None:
    for text in OURS.findall(page.read_text()):
        complete = text if "[domain." in text else f'{text}\n[domain."example.com"]\nbackends = ["local"]\n'
        assert [problem for problem in problems(complete) if not ELSEWHERE.search(problem)] == []


def test_every_example_is_named_where_people_begin() -> None:
    assert EXAMPLES
    assert all(str(path.relative_to(ROOT)) in (ROOT / "README.md").read_text() for path in EXAMPLES)


def test_every_reason_has_its_section() -> None:
    sections = re.findall(r"^## (\S+)$", (ROOT / "docs/reasons.md").read_text(), re.MULTILINE)
    assert sections == [reason.value for reason in Reason]


def test_every_refusal_has_its_cause_and_its_cure() -> None:
    sections = re.split(r"^## (\S+)$", (ROOT / "docs/reasons.md").read_text(), flags=re.MULTILINE)[1:]
    sentences = {name: len(re.findall(r"[.:?](?=\s)", text)) for name, text in zip(sections[::2], sections[1::2], strict=True)}
    assert [name for name, count in sentences.items() if count < 2] == [Reason.OK]


def documented(*pages: Path) -> set[str]:
    """Return the words that pages set as code."""
    return {word for page in pages for word in re.findall(r"`(\w+)`", page.read_text())}


def test_every_key_is_in_the_configuration_page() -> None:
    configs = [Daemon, Domain, Layers, CacheRules, NameRules]
    configs += [plugins.listener(protocol).Config for protocol in PROTOCOLS]
    keys = {field.name for config in configs for field in dataclasses.fields(config)}
    assert keys <= documented(ROOT / "docs/configuration.md")


@pytest.mark.parametrize("kind", [path.name.removeprefix("extauth_") for path in sorted((ROOT / "backends").glob("extauth_*"))])
def test_every_backends_keys_are_on_its_page(kind: str) -> None:
    pages = [page for page in (ROOT / "docs").glob("*.md") if f'type = "{kind}"' in page.read_text()]
    assert {field.name for field in dataclasses.fields(plugins.backend(kind).Config)} <= documented(*pages)


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`(test_\w+)\.(test_\w+)`", (ROOT / "docs/security.md").read_text())
    assert named
    for module, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / f"tests/{module}.py").read_text(), re.MULTILINE), (module, name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
