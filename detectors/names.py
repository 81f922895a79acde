"""The families of detectors, as the settings name them."""

from __future__ import annotations

from enum import StrEnum


class DetectorName(StrEnum):
    """A family of detectors, as the settings name it."""

    CUSUM = "cusum"
    """CUSUM banks over learned scores of both factors; thresholds keep the promise."""
    NEWMA = "newma"
    """NEWMA on the joint of the inputs; the threshold keeps the promise."""
    CONFORMAL = "conformal"
    """Conformal Shiryaev-Roberts sums, by class in Y->X problems; the promise is a theorem."""
    E_DETECTOR = "e_detector"
    """E-detectors of P(Y|X) or P(Y) around a band; the promise is a theorem."""
    SD_EWMA = "sd_ewma"
    """SD-EWMA of every input, as published; it keeps no promise."""
    TSSD_EWMA = "tssd_ewma"
    """TSSD-EWMA of every input, as published; it keeps no promise."""
    ADWIN = "adwin"
    """ADWIN on errors; it and those below keep no promise."""
    PAGE_HINKLEY = "page_hinkley"
    KSWIN = "kswin"
    DDM = "ddm"
    """River's on errors, as the three below."""
    EDDM = "eddm"
    HDDM_A = "hddm_a"
    HDDM_W = "hddm_w"
    ALIBI_MMD = "alibi_mmd"
    """alibi-detect's, an optional dependency, on inputs; it and those below promise loosely."""
    ALIBI_LSDD = "alibi_lsdd"
    ALIBI_CVM = "alibi_cvm"
    ALIBI_FET = "alibi_fet"
    """On errors."""

    @property
    def needs_alibi(self) -> bool:
        """Whether it comes from alibi-detect."""
        return self.startswith("alibi_")
