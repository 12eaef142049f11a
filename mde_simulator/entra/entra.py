"""What Microsoft Entra ID says when it gives no token, by AADSTS number.

Texts only, shortened where they only repeat; who is refused, and why, is up to `identity.py` and
`credentials.py`.
"""


class Refused(Exception):  # noqa: N818 - it is the name of what happened, not of a defect
    """No token: `code` is the AADSTS number, `about` the resource, scope, grant or parameter in question."""

    def __init__(self, code: int, about: str = "", detail: str = "") -> None:
        super().__init__(code, about, detail)
        self.code = code
        self.about = about
        self.detail = detail


ERRORS: dict[int, tuple[str, str]] = {
    7000215: (
        "invalid_client",
        (
            "Invalid client secret provided. Ensure the secret being sent in the request is "
            "the client secret value, not the client secret ID, for a secret added to app "
            "'{app}'."
        ),
    ),
    7000222: (
        "invalid_client",
        (
            "The provided client secret keys for app '{app}' are expired. Visit the Azure "
            "portal to create new keys for your app."
        ),
    ),
    7000218: (
        "invalid_client",
        ("The request body must contain the following parameter: 'client_assertion' or 'client_secret'."),
    ),
    700016: (
        "unauthorized_client",
        (
            "Application with identifier '{app}' was not found in the directory '{tenant}'. "
            "This can happen if the application has not been installed by the administrator "
            "of the tenant."
        ),
    ),
    90002: (
        "invalid_request",
        (
            "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID "
            "and are signing into the correct cloud."
        ),
    ),
    700027: (
        "invalid_client",
        "The certificate with identifier used to sign the client assertion is not registered on application.",
    ),
    500011: (
        "invalid_resource",
        (
            "The resource principal named {resource} was not found in the tenant named "
            "{tenant}. This can happen if the application has not been installed by the "
            "administrator of the tenant."
        ),
    ),
    1002012: (
        "invalid_scope",
        (
            "The provided value for scope {resource} is not valid. Client credential flows "
            "must have a scope value with /.default suffixed to the resource identifier "
            "(application ID URI)."
        ),
    ),
    700024: ("invalid_client", "Client assertion is not within its valid time range."),
    70021: (
        "invalid_request",
        "No matching federated identity record found for presented assertion.",
    ),
    700213: (
        "invalid_client",
        "No matching federated identity record found for presented assertion subject.",
    ),
    65001: (
        "invalid_grant",
        ("The user or administrator has not consented to use the application with ID '{app}'."),
    ),
    7000112: ("unauthorized_client", "Application '{app}' is disabled."),
    7000229: (
        "unauthorized_client",
        ("The client application '{app}' is missing service principal in the tenant '{tenant}'."),
    ),
    53003: (
        "access_denied",
        ("Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."),
    ),
    70003: ("unsupported_grant_type", "The app requested an unsupported grant type '{resource}'."),
    900144: (
        "invalid_request",
        "The request body must contain the following parameter: '{resource}'.",
    ),
    700021: (
        "invalid_client",
        "Client assertion application identifier doesn't match 'client_id' parameter.",
    ),
    700023: ("invalid_client", "Client assertion audience claim does not match Realm issuer."),
    50013: ("invalid_grant", "Assertion failed signature validation."),
    50027: ("invalid_request", "Invalid JWT token. The client assertion is malformed."),
    90033: ("temporarily_unavailable", "A transient error has occurred. Please try again."),
    90055: ("temporarily_unavailable", "There are too many incoming requests; the tenant is throttled."),
}
"""The OAuth error, and the description."""
