"""R-BOCPD for zeros and ones and for K categories, on one stream (``RBOCPD``) and on many (``RBOCPDBank``)."""

from monitoring.rbocpd.bank import BankChange, RBOCPDBank
from monitoring.rbocpd.detector import RBOCPD

__all__ = ["RBOCPD", "BankChange", "RBOCPDBank"]
