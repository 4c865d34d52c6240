"""Calls of MLflow: nothing else imports it, but for the app that its server runs."""
