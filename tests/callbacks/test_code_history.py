"""A run that resumes with other code states by which it was trained before."""

from __future__ import annotations

from ssl_bench.callbacks.code_history import CodeHistory


def version(commit: str) -> dict[str, object]:
    return {"version": "0.1.0", "commit": commit, "modified": False}


def session(commit: str, state: dict[str, object] | None) -> CodeHistory:
    history = CodeHistory(version(commit))
    if state is not None:
        history.load_state_dict(state)
    return history


def test_every_version_is_kept_once_in_order() -> None:
    state = None
    for commit in ("a", "a", "b", "b"):
        history = session(commit, state)
        state = history.state_dict()
    assert history.earlier == [version("a")]
    assert session("c", state).earlier == [version("a"), version("b")]
    assert session("a", None).earlier == []
