"""The settings of the source: files, or topics of Kafka under the names that Apache Kafka uses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from service.settings.file import FieldError
from service.settings.secret import check_either, read_secret, web_address
from service.settings.section import Section

Text = Annotated[str, Field(min_length=1)]

_OF_HTTP = {"max_backlog_bytes", "max_request_bytes", "max_request_records", "idempotency_keys"}
_FIELDS = {"file": {"path", "follow"}, "directory": {"path", "follow"}, "http": {"path", *_OF_HTTP}}
"""What each kind of source knows; stdin knows nothing, and all else is Kafka's."""


class TopicSettings(Section):
    """The topics that are read."""

    features: Text = Field(description="Topic of the events; labels may stand in it too.")
    labels: Text | None = Field(
        default=None, description="Topic of labels that come by themselves, if they have one."
    )
    dead_letters: Text | None = Field(
        default=None,
        description="Topic that records which could not be used are written to, instead of the "
        "file dead_letters.path.",
    )
    incidents: Text | None = Field(
        default=None,
        description="Topic that every new state of an incident is written to as a CloudEvent.",
    )

    @model_validator(mode="after")
    def _different(self) -> TopicSettings:
        first: dict[str, str] = {}
        for field in TopicSettings.model_fields:
            topic = getattr(self, field)
            other = first.setdefault(topic, field) if topic is not None else field
            if other != field:
                raise FieldError((field,), f"expected another topic than {other}, {topic!r}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are read."""
        return (self.features,) if self.labels is None else (self.features, self.labels)


class SchemaRegistrySettings(Section):
    """The registry of schemas that records in Avro name theirs in."""

    url: Text = Field(repr=False, description="Kafka: its address; https:// or http://.")
    username: Text | None = Field(default=None, description="Kafka: who logs in there.")
    password: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="Kafka: the password; it belongs in the environment "
        "(SHIFTWATCH_SOURCE__SCHEMA_REGISTRY__PASSWORD).",
    )
    password_file: Path | None = Field(
        default=None, description="Kafka: file that holds the password instead."
    )
    ssl_cafile: Path | None = Field(
        default=None, description="Kafka: certificates to trust, PEM; none for the usual ones."
    )
    timeout_s: float = Field(
        default=10.0, gt=0, le=60, description="Kafka: seconds after which a look-up has failed."
    )

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        return web_address(value).rstrip("/")

    @model_validator(mode="after")
    def _one_login(self) -> SchemaRegistrySettings:
        check_either(self, "password")
        password = self.password or self.password_file
        if (password is None) != (self.username is None):
            missing = "password" if password is None else "username"
            raise FieldError((missing,), "expected username and password, or neither")
        return self

    def read_password(self) -> str | None:
        """Return the password, from its file if it has one; None if there is none.

        Raises
        ------
        SettingsError
            If the file cannot be read or is empty.
        """
        return read_secret(
            "source.schema_registry.password_file", self.password, self.password_file
        )


class SourceSettings(Section):
    """Where records come from."""

    kind: Literal["file", "directory", "http", "stdin", "kafka"] = Field(
        default="file",
        description="A file of records, a directory of such files by name, events that are posted "
        "over HTTP, lines of standard input, or topics of Kafka.",
    )
    path: Path = Field(
        default=Path("var/events.jsonl"),
        description="The file (JSON lines, .gz, .parquet) or directory; where kind is http the "
        "folder of events that are not processed yet, var/spool by default.",
    )
    follow: bool = Field(
        default=False, description="Wait for more at the end instead of stopping there."
    )
    max_backlog_bytes: int = Field(
        default=1 << 30,
        ge=1 << 16,
        description="HTTP: no more events are taken while so many bytes are not processed.",
    )
    max_request_bytes: int = Field(
        default=16 << 20,
        ge=1 << 10,
        description="HTTP: largest body of a request, after decompression.",
    )
    max_request_records: int = Field(
        default=10_000, ge=1, description="HTTP: most events of a request."
    )
    idempotency_keys: int = Field(
        default=20_000,
        ge=0,
        le=200_000,
        description="HTTP: how many of the last Idempotency-Keys are remembered.",
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
    schema_registry: SchemaRegistrySettings | None = Field(
        default=None,
        description="Kafka: where the schemas of records in Avro are; needs the extra avro.",
    )
    group_id: Text = Field(
        default="shiftwatch",
        description="Kafka: the consumer group, in which the processes share the partitions.",
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

    @model_validator(mode="before")
    @classmethod
    def _spool_by_default(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("kind") == "http":
            return {"path": "var/spool", **value}
        return value

    @model_validator(mode="after")
    def _of_its_kind(self) -> SourceSettings:
        given = self.model_fields_set - {"kind"}
        if self.kind == "kafka":
            foreign = given & set().union(*_FIELDS.values())
        else:
            foreign = given - _FIELDS.get(self.kind, set())
        if foreign:
            name = min(foreign)
            raise FieldError((name,), f"has no meaning where kind is {self.kind}")
        if self.kind == "kafka":
            self._check_kafka()
        if self.max_request_bytes > self.max_backlog_bytes:
            most, got = self.max_backlog_bytes, self.max_request_bytes
            message = f"expected at most max_backlog_bytes, which is {most}, got {got}"
            raise FieldError(("max_request_bytes",), message)
        return self

    def _check_kafka(self) -> None:
        if not self.bootstrap_servers:
            raise FieldError(("bootstrap_servers",), "expected at least one HOST:PORT, got none")
        if self.topics is None:
            raise FieldError(("topics",), "expected topics.features, got none")
        self._check_login()
        self._check_certificates()

    def _check_login(self) -> None:
        check_either(self, "sasl_password")
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
        check_either(self, "ssl_key_password")
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
