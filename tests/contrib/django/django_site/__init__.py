"""A site to test with: books and their authors, in two databases."""
