"""Where the proxy that fails on purpose was before `jobs/drill.py` had need of it."""

from jobs.s3_proxy import S3Proxy as S3Proxy
from jobs.s3_proxy import What as What
