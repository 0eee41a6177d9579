"""The report of a finished ``--seg`` run: one HTML file (``segdre report``)."""
