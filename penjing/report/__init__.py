"""Tell people: words, tables and curves from a run's figures."""

from penjing.report._events import EventLog as EventLog
from penjing.report._table import count as count
from penjing.report._table import plain as plain
from penjing.report._table import table as table
from penjing.report._table import verdict as verdict
