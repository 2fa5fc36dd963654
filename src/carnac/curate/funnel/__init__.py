"""What each pass kept and took, added up part by part."""
