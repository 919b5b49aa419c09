"""The files of sessions, touched while hostile code may write beside."""
