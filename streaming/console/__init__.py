"""The console: a web page for operators over the log and the policies; see docs/console.md."""
