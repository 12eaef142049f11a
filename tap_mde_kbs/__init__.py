"""Singer tap for Microsoft Defender for Endpoint: machines and the security updates each one lacks."""
