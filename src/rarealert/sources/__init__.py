"""Readers of foreign formats: each turns a published or exported file into cases."""
