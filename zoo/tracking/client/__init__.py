"""Calls of MLflow: nothing else of this project imports it, but for the app that its server runs."""
