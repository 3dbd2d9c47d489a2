"""Where the server of hostile hosts was before `jobs/drill.py` had need of it."""

from jobs.hostile_server import OVERSIZE as OVERSIZE
from jobs.hostile_server import PIXEL as PIXEL
from jobs.hostile_server import HttpServer as HttpServer
