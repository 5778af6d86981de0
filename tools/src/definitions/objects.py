"""What reads objects of a document: fields by their tables, and every fault with its path."""
from ..base.words import tell_near
from .kinds import InnerFaults
from .references import _REFERENCE


class ObjectReader:
    """Reads objects, and collects every fault as (path, reason)."""

    def __init__(self):
        self.faults = []

    def _fault(self, path, reason):
        self.faults.append((path, reason))

    def _try(self, path, check, value):
        try:
            return check(value)
        except InnerFaults as error:
            self.faults.extend((path + inner, reason) for inner, reason in error.faults)
        except (ValueError, OverflowError) as error:
            self._fault(path, str(error))
        return None

    def _object(self, path, value, fields):
        """The values of an object by name, defaults filled in; faults are noted."""
        if not isinstance(value, dict):
            self._fault(path, "must be an object")
            value = None
        result = {}
        for name in value or ():
            if name not in fields:
                self._fault("%s.%s" % (path, name), "unknown field" + tell_near(name, fields))
        for name, field in fields.items():
            result[name] = field.default
            if value is None:
                continue
            if name in value:
                result[name] = self._try("%s.%s" % (path, name), field.kind.check, value[name])
            elif field.required:
                self._fault("%s.%s" % (path, name), "missing")
        return result

    def _references(self, path, text, variables):
        for match in _REFERENCE.finditer(text):
            name = match.group(1)
            if name and name not in variables:
                self._fault(path, "no variable is named %s (for a literal ${%s} write $${%s})%s"
                            % (name, name, name, tell_near(name, variables)))

    def _bound(self, path, names, variables):
        """The names that a statement binds: each must be a variable."""
        for name in names:
            if name not in variables:
                self._fault(path, "no variable is named %s (for a literal :%s write \\:%s)%s"
                            % (name, name, name, tell_near(name, variables)))
