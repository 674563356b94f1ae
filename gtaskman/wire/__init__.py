"""The pipe between a manager and its workers: frames, messages, payloads, channel, slate.

Private to a parent and its own children, which is why pickle is safe here, and only here.
"""
