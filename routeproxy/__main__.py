from routeproxy.cli import main

main()
