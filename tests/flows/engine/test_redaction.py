"""What is secret is replaced by the name of its variable, in every spelling in which it is sent; the rest stays."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.engine.redaction import redact, scrub, without_credentials

TOKEN = "hf_QJxVbn83kLmZ02pR"


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_PASSWORD",
     "MLFLOW_FLASK_SERVER_SECRET_KEY", "POSTGRES_PASSWORD", "OPENAI_API_KEY", "db_password"],
)  # fmt: skip
def test_the_value_of_a_secret_variable_is_replaced_by_its_name(name):
    assert redact(f"401 for Bearer {TOKEN}!", {name: TOKEN}) == f"401 for Bearer [{name}]!"


@pytest.mark.parametrize(
    ("name", "value"),
    [("RAY_AUTH_TOKEN_PATH", "/run/secrets/ray"), ("TOKENIZERS_PARALLELISM", "really-false"),
     ("TESSERA_MIRROR", "/mirror"), ("HF_TOKEN", "none"), ("RAY_AUTH_MODE", "disabled")],
)  # fmt: skip
def test_what_is_no_secret_stays(name, value):
    assert redact(f"{name} is {value}", {name: value}) == f"{name} is {value}"


def test_passwords_in_addresses_and_their_other_spellings_are_found():
    store = {"MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg2://tessera:p%40ss%2Fword@db:5432/mlflow"}
    said = redact("p@ss/word was wrong for postgresql://tessera:p%40ss%2Fword@db:5432/mlflow of tessera", store)
    assert "word" not in said.replace("[MLFLOW_BACKEND_STORE_URI]", "").replace("was wrong", "")
    assert said.endswith("for postgresql://db:5432/mlflow of tessera")
    pair = {"PREFECT_API_AUTH_STRING": "tessera:" + TOKEN}
    encoded = base64.b64encode(("tessera:" + TOKEN).encode()).decode()
    assert TOKEN not in redact(f"{TOKEN} tessera:{TOKEN}", pair)
    assert encoded not in redact(f"Authorization: Basic {encoded}", pair)


def test_an_address_loses_user_and_password_and_nothing_else():
    assert without_credentials("see http://a:b@host:1/x?y=1@2 and s3://bucket/k@2") == (
        "see http://host:1/x?y=1@2 and s3://bucket/k@2"
    )


@given(st.text(), st.text(min_size=6), st.text(), st.text(min_size=6))
def test_no_secret_survives_wherever_it_stands(before, secret, after, other):
    environment = {"A_TOKEN": secret, "B_PASSWORD": other}
    names = "".join(f"[{name}]" for name in environment)
    if secret not in names and other not in names:
        said = redact(before + secret + after, environment)
        rest = said.replace("[A_TOKEN]", "\0").replace("[B_PASSWORD]", "\0")
        assert not any(secret in part or other in part for part in rest.split("\0"))


def test_a_log_is_rewritten_only_where_it_holds_a_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    clean, dirty = tmp_path / "clean.txt", tmp_path / "dirty.txt"
    clean.write_bytes(b"all is well \xff\r\n")
    dirty.write_bytes(b"\xff " + TOKEN.encode() + b"\r\n")
    before = clean.stat().st_ino
    scrub(clean), scrub(dirty), scrub(tmp_path / "missing.txt")
    assert (clean.read_bytes(), clean.stat().st_ino) == (b"all is well \xff\r\n", before)
    assert dirty.read_bytes() == b"\xff [HF_TOKEN]\r\n"
