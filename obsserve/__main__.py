"""`python -m obsserve` is the command `obsserve`."""

from obsserve.main import main

if __name__ == "__main__":
    main(prog_name="obsserve")
