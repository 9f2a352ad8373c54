"""What differs between kinds of mesh, a module a kind; what does not, stands in topology."""

from meshdoctor.kinds.interface import Kind, Signs
from meshdoctor.kinds.recognition import recognise

__all__ = ["Kind", "Signs", "recognise"]
