"""Mail by SMTP."""
import contextlib
import os
import re

from ..base.vocabulary import DONE, WARNING
from ..definitions.kinds import FILLED, Field, TEXT, list_of
from ..definitions.fields import MAIL_TLS
from .files import open_regular
from .roots import ANYWHERE, Root
from .sendmail import give_to_sendmail
from .network import SILENCE_S, failures_at, time_limit, tls_context
from .task import HelperTask, TaskError, needed, task_type

MAIL_S = 3600               # for a mail
# what mimetypes tells of how a file is packed
PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz",
          "compress": "application/x-compress"}


@task_type("mail")
class MailTask(HelperTask):
    """A mail by the server that the data server MAIL of the topology names."""

    fields = {
        "to": Field(list_of(FILLED, 1), required=True, meaning="the addresses"),
        "subject": needed("the subject"),
        "body": Field(TEXT, default="", meaning="the text"),
        "attach": Field(list_of(FILLED), default=[], meaning="files that are attached"),
    }

    def prepare(self, fields, execution):
        """The order, with the data server MAIL. TaskError."""
        return dict(super().prepare(fields, execution), server=execution.mail_server())

    @classmethod
    def work(cls, order):
        """Sends the mail, in the helper -> fields of a TaskResult. TaskError."""
        connect = order["server"] and order["server"]["connect"] or {}
        message = cls._message(order, connect)
        if order["server"] is None:         # of a notice
            return give_to_sendmail(message, order["limit_s"])
        host = connect.get("host", "localhost")
        tls = cls._tls(connect, host)
        port = int(connect.get("port") or {"none": 25, "starttls": 587, "ssl": 465}[tls])
        place = "mail by %s:%d" % (host, port)
        with failures_at(place), time_limit(order.get("limit_s", MAIL_S), place):
            with contextlib.closing(cls._connect(host, port, tls)) as smtp:
                cls._login(smtp, connect)
                refused = smtp.send_message(message)
                cls._quit(smtp)
        return {"status": WARNING if refused else DONE,
                "message": "refused: %s" % ", ".join(refused) if refused else ""}

    @staticmethod
    def _tls(connect, host):
        """none, starttls or ssl. TaskError of a definition from before that was checked."""
        tls = connect.get("tls")
        if tls is None:
            return "none" if host in ("localhost", "127.0.0.1", "::1") else "starttls"
        if tls not in MAIL_TLS:
            raise TaskError("data server MAIL: connect.tls: must be %s" % " or ".join(MAIL_TLS))
        return tls

    @staticmethod
    def _connect(host, port, tls):
        """A connection, with the certificate verified before anything else where it is TLS."""
        import smtplib
        context = None if tls == "none" else tls_context()
        if tls == "ssl":
            return smtplib.SMTP_SSL(host, port, timeout=SILENCE_S, context=context)
        smtp = smtplib.SMTP(host, port, timeout=SILENCE_S)
        if tls == "starttls":
            smtp.starttls(context=context)
        return smtp

    @staticmethod
    def _login(smtp, connect):
        user, password = connect.get("user"), connect.get("password", "")
        if not user:
            return
        if any(ord(c) > 127 for c in "%s%s" % (user, password)):    # smtplib would tell which
            raise TaskError("data server MAIL: user and password must be ASCII")
        smtp.login(user, password)

    @staticmethod
    def _quit(smtp):
        """The mail is sent, whatever the server makes of QUIT."""
        with contextlib.suppress(OSError, TaskError), time_limit(SILENCE_S, "QUIT"):
            smtp.quit()

    @staticmethod
    def _message(order, connect):
        """The EmailMessage with its headers, text and files. TaskError, OSError."""
        import email.message
        import email.policy
        import email.utils
        # a header of an attached mail that is not ours to change is not folded anew
        message = email.message.EmailMessage(email.policy.default.clone(refold_source="none"))
        host = os.uname().nodename
        try:
            senders = read_addresses([connect.get("sender") or "agent@" + host])
            message["From"] = senders
            message["To"] = read_addresses(order["to"])
            message["Subject"] = " ".join(order["subject"].split())
            message["Date"] = email.utils.formatdate(localtime=True)
            if "id" in order:       # of a notice: at each try the same (RFC 3834, 5)
                number = "<%s@%s>" % (order["id"], re.sub("[^A-Za-z0-9.-]", "-", host))
                message["Auto-Submitted"] = "auto-generated"
            else:
                number = email.utils.make_msgid(domain=senders[0].domain or host)
            if max(number) < "\x80":        # as it is: Python 3.7 would encode a long one
                message.set_raw("Message-ID", number)
            else:
                message["Message-ID"] = number
        except (ValueError, IndexError) as error:
            raise TaskError("a header of the mail: %s" % error) from None
        message.set_content(order["body"], cte=order.get("cte"))
        for path in order["attach"]:
            attach(message, path, Root(order.get("root")))
        return message


def read_addresses(texts):
    """Address objects of texts, each of them one address, or several with commas between them;
    one with a comma in its name has no @ there. ValueError."""
    import email.headerregistry
    import email.utils
    addresses = []
    for text in map(str.strip, texts):
        if "\r" in text or "\n" in text:
            raise ValueError("an address has a line end")
        pairs = email.utils.getaddresses([text])
        if "<" in text and not all("@" in address for _, address in pairs):
            name, _, address = text.rpartition("<")
            pairs = [(name.strip().strip('"'), address.strip().rstrip(">"))]
        for name, address in pairs or [("", "")]:
            if not address or any(c in address for c in " \r\n<>"):
                raise ValueError("%r is no address" % text)
            user, domain = address.rsplit("@", 1) if "@" in address else (address, "")
            addresses.append(email.headerregistry.Address(name, user, domain))
    return addresses


def attach(message, path, root=ANYWHERE):
    """Adds a file to a mail: another mail as such, which RFC 2046 has unpacked, the rest as
    base64."""
    import email
    import mimetypes
    name = os.path.basename(path)
    kind, packing = mimetypes.guess_type(path)
    with open_regular(path, root) as file:
        data = file.read()
    if kind == "message/rfc822" and not packing:
        message.add_attachment(email.message_from_bytes(data, policy=message.policy),
                               filename=name)
        return
    if packing:
        kind = PACKED.get(packing)
    if not kind or kind.startswith(("message/", "multipart/")):
        kind = "application/octet-stream"
    group, _, subtype = kind.partition("/")
    message.add_attachment(data, maintype=group, subtype=subtype, filename=name)
