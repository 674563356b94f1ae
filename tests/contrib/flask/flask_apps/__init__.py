"""Applications for the tests of the Flask extension."""
