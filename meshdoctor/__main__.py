"""`python -m meshdoctor` is `meshdoctor`."""

from meshdoctor.cli import main

if __name__ == "__main__":
    main()
