"""PostgreSQL: the pool, the migrations, the named statements, and the embedded server. The only room that imports psycopg."""
