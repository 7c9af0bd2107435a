"""The bus inside frameworks; each module needs the library that it is named after."""
