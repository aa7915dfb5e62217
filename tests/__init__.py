"""The tests of udpecho; they mirror its rooms."""
