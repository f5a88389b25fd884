"""What every handler may use: made once per gateway process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gateway.access import Access
from gateway.blob_read import BlobReader
from gateway.cluster import Cluster
from gateway.settings import GatewaySettings
from gateway.upload import Uploader


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayContext:
    settings: GatewaySettings
    cluster: Cluster
    access: Access
    reader: BlobReader
    uploader: Uploader
    digest_threads: ThreadPoolExecutor
