"""What a streaming step costs: counted, as compiled, as measured, beside the published figures."""
