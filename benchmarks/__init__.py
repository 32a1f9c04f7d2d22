"""What Penjing is measured on; no part of the package."""
