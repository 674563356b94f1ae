"""Each extra of ``setup.cfg`` alone: what the pages and examples name it for must run with it.

::

    python -m tests.extras                     # all, with the distributions of this environment
    python -m tests.extras flask --pip         # one, with a built wheel that pip installs

The test environment has everything, and so does not notice what an extra forgets to name.

=================  ============================================================================
``environment``    a virtual environment with what one extra brings, and nothing else
``documents``      the blocks of the pages, and the files that they tell the reader to write
``room``           a directory and an environment, in which commands are run as a reader types them
``catalog``        what is run with each extra
=================  ============================================================================
"""
