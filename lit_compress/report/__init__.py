"""What measured rows say: the table, the plots and the page."""
