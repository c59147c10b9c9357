"""What a job did, as JSON, as a page and as charts."""
