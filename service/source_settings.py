"""The settings of the source: files, or topics of Kafka under the names that Apache Kafka uses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from service.config_file import FieldError
from service.secret import read_secret
from service.stream_settings import Section

Text = Annotated[str, Field(min_length=1)]


class TopicSettings(Section):
    """The topics that are read."""

    features: Text = Field(description="Topic of the events; labels may stand in it too.")
    labels: Text | None = Field(
        default=None, description="Topic of labels that come by themselves, if they have one."
    )

    @model_validator(mode="after")
    def _two(self) -> TopicSettings:
        if self.features == self.labels:
            raise FieldError(("labels",), f"expected another topic than features, {self.labels!r}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All topics."""
        return (self.features,) if self.labels is None else (self.features, self.labels)


class SourceSettings(Section):
    """Where records come from."""

    kind: Literal["file", "directory", "kafka"] = Field(
        default="file",
        description="A file of records, a directory of such files by name, or topics of Kafka.",
    )
    path: Path = Field(
        default=Path("var/events.jsonl"),
        description="The file (JSON lines, .gz, .parquet) or directory.",
    )
    follow: bool = Field(
        default=False, description="Wait for more at the end instead of stopping there."
    )
    bootstrap_servers: tuple[Text, ...] = Field(
        default=(),
        description="Kafka: HOST:PORT of some brokers, which name the others. This and all below "
        "is for Kafka only; text with commas is a list too.",
    )
    client: Literal["kafka-python", "confluent"] = Field(
        default="kafka-python",
        description="Kafka: the library that talks to the brokers. confluent is faster and an "
        "extra: pip install 'shiftwatch[confluent]'. All other settings mean the same to both.",
    )
    topics: TopicSettings | None = Field(default=None, description="Kafka: the topics.")
    group_id: Text = Field(
        default="shiftwatch",
        description="Kafka: the consumer group; it must have no other members.",
    )
    group_instance_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] | None = Field(
        default=None,
        description="Kafka: a name that stays over restarts (static membership); a process that "
        "was killed then goes on at once, not only after session_timeout_ms.",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="Kafka: how to talk to the brokers."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="Kafka: how to log in, with SASL_PLAINTEXT or SASL_SSL."
    )
    sasl_username: Text | None = Field(default=None, description="Kafka: who logs in.")
    sasl_password: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="Kafka: the password; it belongs in the environment "
        "(SHIFTWATCH_SOURCE__SASL_PASSWORD).",
    )
    sasl_password_file: Path | None = Field(
        default=None, description="Kafka: file that holds the password instead."
    )
    ssl_cafile: Path | None = Field(
        default=None,
        description="Kafka: certificates to trust, PEM; none for the system's.",
    )
    ssl_certfile: Path | None = Field(
        default=None,
        description="Kafka: the certificate to show to brokers that ask for one, PEM.",
    )
    ssl_keyfile: Path | None = Field(default=None, description="Kafka: its private key, PEM.")
    ssl_key_password: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="Kafka: the key's password, if it has one; it belongs in the environment "
        "(SHIFTWATCH_SOURCE__SSL_KEY_PASSWORD).",
    )
    ssl_key_password_file: Path | None = Field(
        default=None, description="Kafka: file that holds the key's password instead."
    )
    session_timeout_ms: int = Field(
        default=45_000,
        ge=1000,
        le=1_800_000,
        description="Kafka: silence after which the group gives a member up.",
    )
    metadata_max_age_ms: int = Field(
        default=60_000,
        ge=100,
        le=3_600_000,
        description="Kafka: after how long to look whether topics have new partitions.",
    )
    max_poll_records: int = Field(
        default=500, ge=1, le=100_000, description="Kafka: records handed to the monitors at once."
    )
    fetch_min_bytes: int = Field(
        default=1,
        ge=1,
        description="Kafka: bytes that a broker waits for before it answers, for at most 500 ms.",
    )
    auto_offset_reset: Literal["earliest", "latest", "none"] = Field(
        default="earliest",
        description="Kafka: where to begin a partition that the store has no offset of, or whose "
        "offset is not there any more; none stops with an error.",
    )
    merge_wait_ms: int = Field(
        default=500,
        ge=0,
        le=600_000,
        description="Kafka: how long after its own time a record waits for partitions that have "
        "nothing to read, so that records are handled in the order of their times.",
    )

    @field_validator("bootstrap_servers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        # What a validator returns is no longer JSON, where a list stands for a tuple.
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _of_its_kind(self) -> SourceSettings:
        of_files = {"path", "follow"}
        given = self.model_fields_set - {"kind"}
        foreign = given & of_files if self.kind == "kafka" else given - of_files
        if foreign:
            name = min(foreign)
            raise FieldError((name,), f"has no meaning where kind is {self.kind}")
        if self.kind == "kafka":
            self._check_kafka()
        return self

    def _check_kafka(self) -> None:
        if not self.bootstrap_servers:
            raise FieldError(("bootstrap_servers",), "expected at least one HOST:PORT, got none")
        if self.topics is None:
            raise FieldError(("topics",), "expected topics.features, got none")
        self._check_login()
        self._check_certificates()

    def _check_login(self) -> None:
        self._check_either("sasl_password")
        login = {
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_username": self.sasl_username,
            "sasl_password": self.sasl_password or self.sasl_password_file,
        }
        wanted = self.security_protocol.startswith("SASL_")
        for name, value in login.items():
            if (value is not None) != wanted:
                says = "needs it" if wanted else "does not log in"
                message = f"security_protocol {self.security_protocol} {says}"
                raise FieldError((name,), message)

    def _check_certificates(self) -> None:
        self._check_either("ssl_key_password")
        names = [n for n in type(self).model_fields if n.startswith("ssl_")]
        given = [n for n in names if getattr(self, n) is not None]
        if given and not self.security_protocol.endswith("SSL"):
            message = f"security_protocol {self.security_protocol} has no certificates"
            raise FieldError((given[0],), message)
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            missing = "ssl_keyfile" if self.ssl_keyfile is None else "ssl_certfile"
            raise FieldError((missing,), "expected both ssl_certfile and ssl_keyfile, got one")
        has_password = self.ssl_key_password or self.ssl_key_password_file
        if has_password and self.ssl_keyfile is None:
            raise FieldError(("ssl_keyfile",), "expected the key that has the password, got none")

    def _check_either(self, name: str) -> None:
        if getattr(self, name) is not None and getattr(self, f"{name}_file") is not None:
            message = f"expected either {name} or {name}_file, got both"
            raise FieldError((f"{name}_file",), message)

    def read_sasl_password(self) -> str | None:
        """Return the password, from its file if it has one; None if there is none.

        Raises
        ------
        SettingsError
            If the file cannot be read or is empty.
        """
        return read_secret("source.sasl_password_file", self.sasl_password, self.sasl_password_file)

    def read_ssl_key_password(self) -> str | None:
        """Return the password of the private key, as above.

        Raises
        ------
        SettingsError
            If the file cannot be read or is empty.
        """
        return read_secret(
            "source.ssl_key_password_file", self.ssl_key_password, self.ssl_key_password_file
        )
