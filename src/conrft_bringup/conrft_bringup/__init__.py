"""Launch files, configuration, the ``conrft`` command and the demo."""
