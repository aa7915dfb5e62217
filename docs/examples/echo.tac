"""An echo server among other services: twistd -ny echo.tac"""

from twisted.application.service import Application
from twisted.internet import reactor

from udpecho import EchoService

application = Application("echo")
EchoService(reactor, 1234, ["127.0.0.1"]).setServiceParent(application)
