"""Opens what the settings name."""

from __future__ import annotations

from service.records.formats.avro import Avro
from service.records.formats.decoder import Decoder
from service.settings.file import SettingsError
from service.settings.service import Settings
from service.settings.source import SourceSettings
from service.sources.directory import DirectorySource
from service.sources.files import FileSource
from service.sources.kafka.schema_registry import SchemaRegistry
from service.sources.kafka.source import KafkaSource
from service.sources.source import Source
from service.sources.spool.source import SpoolSource
from service.sources.spool.spool import Spool
from service.sources.stdin import StdinSource


def open_source(settings: SourceSettings) -> Source:
    """The configured source.

    Raises
    ------
    SourceError
        If it is not there, or cannot be reached.
    SettingsError
        If its password cannot be read.
    """
    if settings.kind == "kafka":
        return KafkaSource(settings)
    if settings.kind == "directory":
        return DirectorySource(settings.path, follow=settings.follow)
    if settings.kind == "stdin":
        return StdinSource()
    if settings.kind == "http":
        return SpoolSource(
            Spool(
                settings.path,
                max_backlog_bytes=settings.max_backlog_bytes,
                max_keys=settings.idempotency_keys,
            )
        )
    return FileSource(settings.path, follow=settings.follow)


def open_decoder(settings: Settings) -> Decoder:
    """The decoder of a service.

    Raises
    ------
    SettingsError
        If a schema registry is configured and the extra `avro` is not installed, or its password
        or certificates cannot be read. The registry need not answer yet.
    """
    registry = settings.source.schema_registry
    avro = None
    if registry is not None:
        try:
            avro = Avro(SchemaRegistry(registry))
        except ImportError:
            raise SettingsError(
                [
                    "source.schema_registry: reading Avro needs the package fastavro, which the "
                    "extra avro installs: pip install 'shiftwatch[avro]'"
                ]
            ) from None
    return Decoder(max_image_bytes=settings.images.max_bytes, avro=avro)
