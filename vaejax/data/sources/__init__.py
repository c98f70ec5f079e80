"""Where pictures lie, and which of them are used."""
