"""Opens what the settings name."""

from __future__ import annotations

from service.settings.source import SourceSettings
from service.sources.directory import DirectorySource
from service.sources.files import FileSource
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
