"""carnac: from crawled web pages to a large multimodal model one can talk to.

Importing this package loads nothing heavy and opens nothing; stages are imported by the job that needs them.
"""

__version__ = "0.1.0"
