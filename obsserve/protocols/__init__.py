"""Small functions under the names that uvicorn's users import."""
