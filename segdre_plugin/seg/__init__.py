"""One ``--seg`` run: its options, its folder, and upstream's ``main()`` once a stage."""
