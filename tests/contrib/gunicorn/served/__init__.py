"""What gunicorn serves in these tests: an application, its tasks, and the configuration."""
