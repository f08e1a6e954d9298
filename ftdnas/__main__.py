from ftdnas.cli.main import main

main()
