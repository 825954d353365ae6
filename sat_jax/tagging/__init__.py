"""Tagging recordings for a person: tags, text formats, arrays of scores."""
