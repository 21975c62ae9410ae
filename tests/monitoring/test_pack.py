"""`celeriac monitoring write DIR`: what is written, and what the programs that read it say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import promql
import pytest

from celeriac.cli import BAD_USAGE, FINDING, FINE, main
from celeriac.monitoring import Options, files

Tool = Callable[..., str]


def run(*arguments: str) -> int:
    try:
        return main(["monitoring", *arguments])
    except SystemExit as end:
        return int(str(end.code))


def everything_in(directory: Path) -> dict[str, str]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_text() for path in paths}


@pytest.mark.parametrize("command", [[], ["write"], ["serve"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--help") == FINE
    assert "usage: celeriac monitoring" in capsys.readouterr().out


def test_nothing_is_overwritten_without_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "new" / "pack"
    assert run("write", str(directory)) == FINE
    first = everything_in(directory)
    assert first == files(Options(), str(directory))
    assert capsys.readouterr().out.count("wrote ") == len(first)
    assert run("write", str(directory)) == FINE
    assert f"{len(first)} files are as they would be" in capsys.readouterr().out
    mine = directory / "prometheus/rules/alerts.yml"
    mine.write_text("groups: []\n")
    (directory / "compose.yml").unlink()
    assert run("write", str(directory)) == FINDING
    captured = capsys.readouterr()
    assert "left prometheus/rules/alerts.yml" in captured.err
    assert "wrote compose.yml" in captured.out
    assert everything_in(directory) == {**first, "prometheus/rules/alerts.yml": "groups: []\n"}
    assert run("write", str(directory), "--force") == FINE
    assert "replaced prometheus/rules/alerts.yml" in capsys.readouterr().out
    assert everything_in(directory) == first


def test_options_are_in_their_places(tmp_path: Path) -> None:
    options = ["--port=9200", "--user=shop", "--store=shm://shop?memory=1G", "--job=django"]
    options += ["--app=shop", "--project=/srv/shop", "--keep-days=3", "--webhook=http://h/x"]
    options += ["--target=a.example:1", "--target=[::1]:2", "--queues=file:///q", "--backups=/b"]
    assert run("write", str(tmp_path), *options) == FINE
    found = everything_in(tmp_path)
    assert 'targets: ["a.example:1", "[::1]:2"]' in found["prometheus/prometheus.yml"]
    assert 'job_name: "django"' in found["prometheus/prometheus.yml"]
    assert "mixins" not in found["prometheus/prometheus.yml"]
    assert 'up{job="django"}' in found["prometheus/rules/alerts.yml"]
    served = found["systemd/celeriac-metrics.service"]
    assert "User=shop" in served
    assert "monitoring serve 'shm://shop?memory=1G' --port 9200" in served
    assert "WorkingDirectory=/srv/shop" in found["systemd/celeriac-worker.service"]
    assert "backup file:///q " in found["backup/backup.sh"]
    assert "-mtime +3 " in found["backup/backup.sh"]
    assert "shop.wsgi" in found["systemd/celeriac-web.service"]
    assert 'url: "http://h/x"' in found["alertmanager/alertmanager.yml"]
    assert not [path for path, text in found.items() if re.search("@[A-Z]", text)]
    assert (
        'targets: ["127.0.0.1:9200"]'
        in files(Options(port=9200), "/p")["prometheus/prometheus.yml"]
    )


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--target=example", "isn't HOST:PORT"),
        ("--target=example:0", "isn't HOST:PORT"),
        ('--target="]:1', "isn't HOST:PORT"),
        ("--port=0", "1 to 65535"),
        ("--port=many", "invalid int"),
        ("--store=redis//x", "redis//x"),
        ("--store=shm://a b", "letters, digits"),
        ("--queues=shm://app", "only file:///DIRECTORY"),
        ("--backups=copies", "isn't an absolute path"),
        ("--backups=/b;reboot", "letters, digits"),
        ("--project=$HOME", "letters, digits"),
        ("--user=root\nExecStart=x", "isn't a name of a user"),
        ("--app=a-b", "isn't a name of a package"),
        ("--keep-days=0", "1 or more"),
        ("--webhook=mail:x", "isn't an http URL"),
        ('--job=a"b', "letters, digits"),
    ],
)
def test_bad_usage(
    option: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("write", str(tmp_path / "p"), option) == BAD_USAGE
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_directory_that_cannot_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("write", str(tmp_path / "my files")) == BAD_USAGE
    assert "my files" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert run("write", str(tmp_path / "file")) == BAD_USAGE
    assert "isn't a directory" in capsys.readouterr().err


def test_promtool_and_amtool_take_it(pack: Path, tool: Tool) -> None:
    assert "3 rule files found" in tool(
        "promtool", "check", "config", pack / "prometheus/prometheus.yml"
    )
    tool("promtool", "check", "rules", *sorted((pack / "prometheus/rules").iterdir()))
    config = pack / "alertmanager/alertmanager.yml"
    assert "2 receivers" in tool("amtool", "check-config", config)
    routes = ["config", "routes", "test", f"--config.file={config}"]
    tool("amtool", *routes, "--verify.receivers=on-call", "severity=critical")
    tool("amtool", *routes, "--verify.receivers=team", "severity=warning")
    tool("amtool", *routes, "--verify.receivers=team", "severity=critical", expect=1)


def test_alerts_fire_where_they_should(pack: Path, tool: Tool, tmp_path: Path) -> None:
    tests = pack / "prometheus/tests/alerts_test.yml"
    assert "SUCCESS" in tool("promtool", "test", "rules", tests)
    said = tests.read_text()
    names = promql.alerts(pack / "prometheus/rules/alerts.yml")
    assert [name for name in names if f'alertname="{name}"' not in said] == []
    # And the tests can fail: another threshold is found.
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    head, queues = said.partition("tests:\n")[0], said.partition("  - name: queues\n")[2]
    (tmp_path / "tests/alerts_test.yml").write_text(f"{head}tests:\n  - name: queues\n{queues}")
    for name in ("recording.yml", "alerts.yml"):
        text = (pack / "prometheus/rules" / name).read_text()
        (tmp_path / "rules" / name).write_text(text.replace("_seconds > 60", "_seconds > 70"))
    failed = tool("promtool", "test", "rules", tmp_path / "tests/alerts_test.yml", expect=1)
    assert "CeleriacQueueOld" in failed


def test_alerts_say_what_to_do(pack: Path) -> None:
    text = (pack / "prometheus/rules/alerts.yml").read_text()
    rules = text.split("- alert: ")[1:]
    assert len(rules) > 20
    for rule in rules:
        assert re.search(r"severity: (warning|critical)\n", rule)
        assert re.search(r"summary: '.+\$labels.+'\n", rule)
        assert re.search(r"description: '.{20,}'\n", rule)
    queues = text.partition("celeriac.queues")[2]
    assert queues.count("- alert: ") >= 7


def test_systemd_takes_the_units(pack: Path, tool: Tool) -> None:
    units = sorted((pack / "systemd").iterdir())
    assert len(units) == 6
    said = tool("systemd-analyze", "verify", "--man=no", *units)
    assert not [line for line in said.splitlines() if "celeriac-" in line], said


def test_cron_runs_what_the_timer_runs(pack: Path) -> None:
    unit = (pack / "systemd/celeriac-backup.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    (line,) = re.findall(r"^\d.+$", (pack / "cron/celeriac-backup").read_text(), re.MULTILINE)
    assert line.split(maxsplit=6)[5:] == ["app", command]
    assert shlex.split(command) == ["/bin/sh", f"{pack}/backup/backup.sh"]


def test_compose_file(pack: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="no PyYAML: pip install '.[test]'")
    services = yaml.safe_load((pack / "compose.yml").read_text())["services"]
    assert set(services) == {"prometheus", "alertmanager", "grafana"}
    for service in services.values():
        assert service["network_mode"] == "host"
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert not source.startswith("./") or (pack / source).is_dir()
    for path in (*pack.rglob("*.yml"), *pack.rglob("*.yaml")):
        assert isinstance(yaml.safe_load(path.read_text()), dict), path
