"""Tell people: words, tables and curves from a run's figures."""

from penjing.report._certificate import certificate_lines as certificate_lines
from penjing.report._certificate import copies_told as copies_told
from penjing.report._events import EventLog as EventLog
from penjing.report._layout import Listing as Listing
from penjing.report._layout import Stacked as Stacked
from penjing.report._layout import from_right as from_right
from penjing.report._page import report_page as report_page
from penjing.report._page_parts import agreement as agreement
from penjing.report._page_parts import curves as curves
from penjing.report._page_parts import flips as flips
from penjing.report._page_parts import frozen_table as frozen_table
from penjing.report._scalability import scalability_table as scalability_table
from penjing.report._scalability import scalability_why as scalability_why
from penjing.report._table import count as count
from penjing.report._table import table as table
from penjing.report._table import verdict as verdict
from penjing.report._trials import trials as trials
from penjing.report._trials import trials_lost as trials_lost
from penjing.report._tried import tried_table as tried_table
from penjing.report._tried import tried_why as tried_why
from penjing.report._units import size as size
from penjing.report._words import report_lines as report_lines
from penjing.report._words import runs_table as runs_table
